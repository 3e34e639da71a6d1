select d.id, d.time, {d_names}, d.chunk, d.metadata, d.contents,
       d.embedding operator({vector_schema}.<=>) %(query)s::{vector_schema}.{vectors} as distance
from {storage} d
where %(filter)s::jsonb[] is null or d.metadata @> any (%(filter)s::jsonb[])
order by d.embedding operator({vector_schema}.<=>) %(query)s::{vector_schema}.{vectors}
limit %(limit)s
