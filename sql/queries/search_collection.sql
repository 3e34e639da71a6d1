select id, metadata, contents, {vectors}.vector_send(embedding), {distance} as distance
from {table}
where %(filter)s::jsonb[] is null or metadata @> any(%(filter)s::jsonb[])
{order}
limit %(limit)s
