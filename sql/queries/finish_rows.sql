update {row} r
set lease = null, attempts = 0, losses = 0, available_at = null, dead = false, error = null, failed_hash = null,
    time = k.time, source_hash = k.source_hash, chunks = k.chunks
from (
  select * from rows from (
    jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}),
    unnest(%(done)b::boolean[]), unnest(%(times)b::timestamptz[]), unnest(%(hashes)b::bytea[]),
    unnest(%(chunks)b::integer[])) as k({names}, done, time, source_hash, chunks)
  where done order by {names}) k
where {row_matches_k} and r.lease = %(token)s
