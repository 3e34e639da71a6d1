-- The chunks stored for those rows of the batch that need comparing. row.time prunes the partitions.
-- The contents say where the text was cut, and whether more than white space changed.
select k.n::integer, d.id, timestamptz_send(d.time), d.chunk, d.content_hash, d.metadata = k.metadata::jsonb,
       d.contents
from rows from (
       jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}),
       unnest(%(wanted)b::boolean[]), unnest(%(metadata)b::text[]))
     with ordinality as k({names}, wanted, metadata, n)
join {row} r on {row_matches_k}
join {storage} d on d.time = r.time and {d_matches_k}
where k.wanted
order by k.n, d.chunk
