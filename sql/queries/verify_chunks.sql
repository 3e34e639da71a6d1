select {d_names}, count(*) as chunks, count(distinct d.chunk) as positions,
       min(d.time) as first_time, max(d.time) as last_time,
       bool_and(d.content_hash = sha256(convert_to(d.contents, 'UTF8'))) as sound,
       bool_and({vector_schema}.vector_dims(d.embedding) = %(dimensions)s) as of_model,
       -- The timestamp inside a UUID of version 1: 60 bits of 100 ns since 1582-10-15.
       bool_and(('x0' || substr(d.id::text, 16, 3) || substr(d.id::text, 10, 4) || substr(d.id::text, 1, 8))::bit(64)::bigint
                = (extract(epoch from d.time) * 10000000)::bigint + 122192928000000000) as timed
from {storage} d where {within_d}
group by {d_names}
