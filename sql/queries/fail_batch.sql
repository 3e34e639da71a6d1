-- A callback failed, and nobody knows for which of its rows: they come back in smaller batches.
update {row} r
set lease = null, dead = false, losses = r.losses + 1, error = left(%(error)s, 2000),
    available_at = clock_timestamp() + make_interval(secs => %(delay_seconds)s * (0.5 + random()))
from (
  select * from rows from (
    jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}))
    as k({names})
  order by {names}) k
where {row_matches_k} and r.lease = %(token)s
