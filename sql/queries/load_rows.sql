-- The batch as it is now, in the order of its numbers. A row that is gone has no source_hash.
select k.n::integer, array[{k_sends}], s.source_hash is not null, timestamptz_send(r.time), r.source_hash, r.chunks, r.attempts,
       s.source_hash, timestamptz_send(s.time), s.metadata, s.columns
from rows from (jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}))
     with ordinality as k({names}, n)
join {row} r on {row_matches_k} and r.lease = %(token)s
left join lateral (
  select {source_hash} as source_hash, {time} as time, {metadata} as metadata,
         {columns} as columns
  from {source} s {join} where {s_matches_k}) s on true
where {expect_columns}
order by k.n
