"""The tenants."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):  # type: ignore[misc]  # the package has no types
    """A customer with a schema of its own."""

    auto_create_schema = True

    name = models.CharField(max_length=20)


class Domain(DomainMixin):  # type: ignore[misc]
    """Where a tenant is served."""
