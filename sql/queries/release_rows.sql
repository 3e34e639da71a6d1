-- Given back untouched: the cause lay outside the data, so no attempt is counted. A dead
-- letter in a lease was edited: it is alive until it fails again.
update {row} r
set lease = null, dead = false, available_at = clock_timestamp() + make_interval(secs => %(delay_seconds)s)
from (
  select * from rows from (
    jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}))
    as k({names})
  order by {names}) k
where {row_matches_k} and r.lease = %(token)s
