"""A project with django-tenants, whose users live in a schema for each tenant."""
