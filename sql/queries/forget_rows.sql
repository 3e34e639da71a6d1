delete from {row} r
using (
  select * from rows from (
    jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}),
    unnest(%(gone)b::boolean[])) as k({names}, gone)
  where gone order by {names}) k
where {row_matches_k} and r.lease = %(token)s
