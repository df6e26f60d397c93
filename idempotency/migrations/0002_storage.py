"""What PostgreSQL is to know about the table's storage; docs/storage.md has the figures."""

from django.db import migrations

# Servers may be built without lz4. The default, pglz, then does.
COMPRESS = """
DO $$
BEGIN
    ALTER TABLE idempotency_key ALTER COLUMN body SET COMPRESSION lz4;
EXCEPTION
    WHEN feature_not_supported THEN NULL;
END
$$
"""


class Migration(migrations.Migration):
    """Compress answers with lz4, and let new keys take the place of purged ones soon."""

    dependencies = [("idempotency", "0001_initial")]

    operations = [
        migrations.RunSQL(COMPRESS, migrations.RunSQL.noop),
        migrations.RunSQL(
            "ALTER TABLE idempotency_key SET (autovacuum_vacuum_scale_factor = 0.05)",
            "ALTER TABLE idempotency_key RESET (autovacuum_vacuum_scale_factor)",
        ),
    ]
