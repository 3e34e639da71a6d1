select d.id, d.time, {d_names}, d.chunk, d.metadata, d.contents,
       d.embedding operator({vector_schema}.<=>) %(query)s::{vector_schema}.vector as distance
from {destination} d
where %(filter)s::jsonb[] is null or d.metadata @> any (%(filter)s::jsonb[])
order by d.embedding operator({vector_schema}.<=>) %(query)s::{vector_schema}.vector
limit %(limit)s
