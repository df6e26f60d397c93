"""The SQL of the hot path: every statement that the claim, the lock and the answer need.

Written by hand because the ORM costs more than the statements do. All of them find the row by its
primary key, and give back at most one row. Short ones sent together cost less than a clever one.
None relies on a session: they work through PgBouncer. Those of the tally and of the purge are at
the end, and do what the ORM has no words for.
"""

# The claim needs no fsync: the WAL is sequential, so the commit that carries the effects to the
# disk carries the claim with it; and a claim that a crash loses is a request never seen.
_WITHOUT_FSYNC = "(SELECT set_config('synchronous_commit', 'off', true)) AS without_fsync"

# Whether the table lies in the schema of the users' table, whose name is the value. Where it does
# not, other requests may find other users, with the same primary keys. NULL asks for nothing.
_SCHEMA = "(pg_identify_object('pg_class'::regclass, to_regclass({}), 0)).schema"
IS_OWN = f"coalesce({_SCHEMA} = {_SCHEMA}, true)".format("'idempotency_key'", "%s")

# A replay must not acknowledge what a COMMIT has not acknowledged yet. A standby cannot be asked
# for that, and has on its disk what it shows.
_IS_AWAITED = "current_setting('synchronous_standby_names') <> '' AND NOT pg_is_in_recovery()"

# What almost every retry needs, and nothing else: it writes nothing, and locks nothing. The first
# value is when this request has looked first, by the clock of the server, or NULL: it has met an
# attempt that was completed since, and finds its response though that has expired.
READ = f"""
    SELECT expires_at <= statement_timestamp()
           AND NOT coalesce(completed_at >= %s::timestamptz, false),
           fingerprint, status, status_code, headers, body, trace, {IS_OWN}, {_IS_AWAITED},
           statement_timestamp()::text
      FROM idempotency_key WHERE id = %s::uuid
"""

# A transaction that writes WAL, and nothing else. Its COMMIT waits for the standbys as any other,
# and they confirm what lies before it in the WAL first: all that this session could see.
CONFIRM = f"""
    SELECT CASE WHEN {_IS_AWAITED} THEN pg_logical_emit_message(true, 'idempotency', '') END
"""

# As many keys of a scope live as it may have. None is counted beyond that, but expired ones are
# passed on the way. Who claims at the same moment is not seen, so the limit is soft by so many.
_ROOM = """
    (SELECT count(*) FROM (
        SELECT FROM idempotency_key WHERE scope = %s AND expires_at > statement_timestamp() LIMIT %s
     ) AS live) < %s
"""

_CLAIM = f"""
    INSERT INTO idempotency_key (
        id, created_at, expires_at, attempts, status, scope, key, operation, fingerprint,
        last_error
    )
    SELECT %s::uuid, statement_timestamp(), statement_timestamp() + %s::interval,
           1 / {IS_OWN}::int, 'in_progress', %s, %s, %s, %s::bytea, ''
      FROM {_WITHOUT_FSYNC}{{}}
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
"""

# Return a row if one is inserted: if there is one already, another request has claimed the key. The
# division fails where callers of several schemas share the table, and the scope names none.
CLAIM = _CLAIM.format("")

# The same where the scope has room for one more.
CLAIM_WITHIN = _CLAIM.format(f" WHERE {_ROOM}")

_TAKE_OVER = f"""
    UPDATE idempotency_key
       SET created_at = statement_timestamp(), expires_at = statement_timestamp() + %s::interval,
           attempts = 1, status = 'in_progress', operation = %s, fingerprint = %s::bytea,
           completed_at = NULL, status_code = NULL, headers = NULL, body = NULL, trace = '',
           last_error = ''
      FROM {_WITHOUT_FSYNC}
     WHERE id = (
        SELECT id FROM idempotency_key
         WHERE id = %s::uuid AND expires_at <= statement_timestamp(){{}}
           FOR NO KEY UPDATE SKIP LOCKED
     )
    RETURNING 1
"""

# The key has expired: its row starts a new life in place, as if it had been purged and inserted.
TAKE_OVER = _TAKE_OVER.format("")
TAKE_OVER_WITHIN = _TAKE_OVER.format(f" AND {_ROOM}")

# Asked only where a claim was not made: the seconds until the first of a scope's keys expires,
# where it has no room for one more, and the key is none of them.
FULL = """
    SELECT ceil(extract(epoch FROM min(expires_at) - statement_timestamp()))::int
      FROM (
        SELECT expires_at FROM idempotency_key
         WHERE scope = %s AND expires_at > statement_timestamp() LIMIT %s
      ) AS live
    HAVING count(*) >= %s AND NOT EXISTS (
        SELECT FROM idempotency_key WHERE id = %s::uuid AND expires_at > statement_timestamp()
    )
"""

# Between a claim and its lock. The next transaction has the isolation of the one that ends.
COMMIT_CLAIM = "COMMIT AND CHAIN"

# Whatever has become of the row until now, from here on it stays as it is. Nobody waits. The
# transaction is asked for its id outside: who finds the row held shall not use one up.
LOCK = """
    SELECT locked.*, pg_current_xact_id()::text
      FROM (
        SELECT created_at::text, attempts, status, fingerprint, expires_at <= statement_timestamp()
          FROM idempotency_key WHERE id = %s::uuid FOR UPDATE SKIP LOCKED
      ) AS locked
"""

# Many may wait at once and are let go together: this is the weakest lock that an attempt's blocks,
# the only one it is blocked by, and it ends with the statement, as the time-out does.
WAIT = """
    SELECT 1 FROM (SELECT set_config('lock_timeout', %s, true)) AS bounded, idempotency_key
     WHERE id = %s::uuid FOR KEY SHARE OF idempotency_key
"""

_MINE = (
    "id = %s::uuid AND created_at = %s::timestamptz AND attempts = %s AND status = 'in_progress'"
)
_MINE_AND_FREE = f"""
    id = (SELECT id FROM idempotency_key WHERE {_MINE} FOR NO KEY UPDATE SKIP LOCKED)
"""

# A response that came late is kept for long enough to be of use. Otherwise the expiry stays as it
# is, so that its index is not written.
_SAVE = """
    UPDATE idempotency_key
       SET attempts = %s, status = 'completed', completed_at = statement_timestamp(),
           expires_at = CASE WHEN expires_at > statement_timestamp() + %s::interval
                             THEN expires_at ELSE statement_timestamp() + %s::interval END,
           status_code = %s, headers = %s::jsonb, body = %s::bytea, trace = %s::bytea
     WHERE {} RETURNING 1
"""

# Under the lock, in the transaction of the view's own work. Where the row is not the attempt's any
# more, or the view has rolled back behind Django's back, the division fails, and with it a COMMIT
# that was sent along. A view that has committed so is not refused: its retry would do it all again.
COMPLETE = f"""
    WITH saved AS ({_SAVE.format(f"{_MINE} AND pg_xact_status(%s::xid8) <> 'aborted'")})
    SELECT 1 / count(*) FROM saved
"""

# Where the COMMIT took so long that the response had no time left when it could be seen.
PROLONG = """
    UPDATE idempotency_key
       SET expires_at = greatest(expires_at, statement_timestamp() + %s::interval)
     WHERE id = %s::uuid AND created_at = %s::timestamptz AND attempts = %s
    RETURNING 1
"""

# After a rollback, when the lock is gone.
KEEP = _SAVE.format(_MINE_AND_FREE)

FAIL = f"""
    UPDATE idempotency_key SET attempts = %s, last_error = %s
      FROM {_WITHOUT_FSYNC} WHERE {_MINE_AND_FREE} RETURNING 1
"""

# Many processes add to the same few rows: in one order, so that no two wait for each other, and
# giving up where somebody holds a row for longer than a statement takes.
COUNT = """
    INSERT INTO idempotency_outcome AS tally (hour, outcome, count)
    SELECT counted.hour, counted.outcome, counted.count
      FROM (
        SELECT set_config('synchronous_commit', 'off', true),
               set_config('lock_timeout', '1000', true)
      ) AS bounded,
           unnest(%s::timestamptz[], %s::text[], %s::bigint[]) AS counted (hour, outcome, count)
     ORDER BY 1, 2
    ON CONFLICT (hour, outcome) DO UPDATE SET count = tally.count + excluded.count
"""

# The purge. Each of its statements is a transaction of its own, and gives back one row.

PURGE_BEGIN = """
    INSERT INTO idempotency_purge DEFAULT VALUES RETURNING id
"""

# A cursor on the expiry spares each batch the dead index entries of those before it. All rows are
# locked before the first is deleted, and PostgreSQL looks at each once more under its lock: a row
# that is held is passed over, and so is one that a claim took over since the statement began. The
# lock also holds the row to its place, so that it can be deleted by it, without another look-up.
# No fsync: what a crash brings back is still expired. The count is committed with the rows. In a
# table of partitions a place is not one row's alone, hence the second look at the expiry.
PURGE_BATCH = f"""
    WITH deleted AS (
        DELETE FROM idempotency_key WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM idempotency_key
             WHERE expires_at <= statement_timestamp() AND expires_at >= %s::timestamptz
             ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
        )) AND expires_at <= statement_timestamp()
        RETURNING expires_at
    ), counted AS (
        SELECT count(*) AS rows, max(expires_at)::text AS latest FROM deleted
    ), recorded AS (
        UPDATE idempotency_purge SET rows = idempotency_purge.rows + counted.rows
          FROM counted WHERE id = %s
    )
    SELECT rows, latest FROM counted, {_WITHOUT_FSYNC}
"""

# The least expiry is the index's first entry, whatever the planner believes; EXISTS, after a large
# purge, reads the table from its beginning. To pass the dead entries once marks them as dead.
PURGE_END = """
    WITH found AS (
        SELECT coalesce(min(expires_at) > statement_timestamp(), true) AS is_complete
          FROM idempotency_key
    ), recorded AS (
        UPDATE idempotency_purge
           SET ended_at = clock_timestamp(), is_complete = found.is_complete
          FROM found WHERE id = %s
    ), trimmed AS (
        DELETE FROM idempotency_purge WHERE id <= %s
    )
    SELECT is_complete FROM found
"""
