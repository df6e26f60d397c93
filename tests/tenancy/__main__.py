"""Send the same key for two tenants, and print what each was told."""

import json
import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tenancy.settings"
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.core import checks  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from django_tenants.utils import schema_context  # noqa: E402

from idempotency.models import IdempotencyKey  # noqa: E402
from tenancy.models import Domain, Tenant  # noqa: E402

KEY = {"Idempotency-Key": "the-same-key"}


def main() -> None:
    """Migrate, make two tenants, and send their requests twice."""
    call_command("migrate_schemas", shared=True, verbosity=0, skip_checks=True)
    found: dict[str, object] = {}
    for name in ("acme", "globex"):
        tenant = Tenant.objects.create(schema_name=name, name=name)
        Domain.objects.create(tenant=tenant, domain=f"{name}.localhost", is_primary=True)
        with schema_context(name):
            User.objects.create(pk=1, username=f"first of {name}")
    for name in ("acme", "globex"):
        client = Client(headers={"Host": f"{name}.localhost"})
        sent = [client.post("/orders/", headers=KEY) for _ in range(2)]
        state = client.get("/idempotency/keys/the-same-key/")
        with schema_context(name):
            scopes = [*IdempotencyKey.objects.values_list("scope", flat=True)]
            found[name] = {
                "told": [it.json() for it in sent],
                "replayed": ["Idempotent-Replayed" in it.headers for it in sent],
                "state": state.json()["status"],
                "orders": Group.objects.count(),
                "scopes": sorted(scopes),
            }
    messages = checks.run_checks(databases=["default"])
    found["checks"] = [it.id for it in messages if str(it.id).startswith("idempotency.E")]
    print(json.dumps(found))


main()
