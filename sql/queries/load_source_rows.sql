-- The batch for a callback: the key, then every column of the source, NULL where the row is gone.
select k.n::integer, x.source_hash, {k_names}, (x.source_row).*
from rows from (jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}))
     with ordinality as k({names}, n)
join {row} r on {row_matches_k} and r.lease = %(token)s
left join lateral (
  select s as source_row, {source_hash} as source_hash from {source} s where {s_matches_k}) x on true
order by k.n
