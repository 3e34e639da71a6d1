-- An edit gives a dead row a new life; while it still has attempts left, an edit does not restore them.
with failed as materialized (
  select {k_names}, k.error, k.source_hash,
         case when (r.dead or r.attempts >= %(max_attempts)s) and r.failed_hash is distinct from k.source_hash then 1 else r.attempts + 1 end as attempts
  from rows from (
      jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}),
      unnest(%(errors)b::text[]), unnest(%(hashes)b::bytea[])) as k({names}, error, source_hash)
  join {row} r on {row_matches_k} and r.lease = %(token)s
  where k.error is not null
)
update {row} r
set lease = null, losses = 0, error = left(k.error, 2000), failed_hash = k.source_hash, attempts = k.attempts,
    dead = k.attempts >= %(max_attempts)s,
    available_at = case when k.attempts < %(max_attempts)s then clock_timestamp()
      + make_interval(secs => least(3600, %(base_seconds)s * 2 ^ least(k.attempts - 1, 20)) * (0.5 + random())) end
from (select * from failed order by {names}) k
where {row_matches_k}
