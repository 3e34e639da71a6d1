-- All chunks of rows under repair, wherever they are and whatever they claim to be.
select k.n::integer, d.id, timestamptz_send(d.time), d.chunk,
       case when d.content_hash = sha256(convert_to(d.contents, 'UTF8'))
                 and {vector_schema}.vector_dims(d.embedding) = {dimensions}
            then d.content_hash else ''::bytea end,
       d.metadata = k.metadata::jsonb, null::text
from rows from (
       jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record}),
       unnest(%(wanted)b::boolean[]), unnest(%(metadata)b::text[]))
     with ordinality as k({names}, wanted, metadata, n)
join {storage} d on {d_matches_k}
where k.wanted
order by k.n, d.chunk
