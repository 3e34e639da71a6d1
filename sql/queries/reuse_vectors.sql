-- Vectors of the same model that another generation has for these rows.
select distinct on (d.content_hash) d.content_hash,
       {vector_schema}.{vectors_send}(d.embedding::{vector_schema}.{vectors})
from rows from (jsonb_to_recordset((select keys from {schema}.lease where token = %(token)s)) as ({record})) as k({names})
join {reuse} d on {d_matches_k}
where d.content_hash = any (%(hashes)b::bytea[])
