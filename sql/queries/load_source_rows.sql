-- The batch for a callback: the key, then every column of the source, NULL where the row is gone. Columns
-- are told apart by their place, for they may have any name.
select k.n::integer, {k_names}, x.*
from rows from (jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}))
     with ordinality as k({names}, n)
join {row} r on {row_matches_k} and r.lease = %(token)s
left join lateral (select {source_hash}, s.* from {source} s where {s_matches_k}) x on true
where {expect_columns}
order by k.n
