-- Chunks that stay: their vectors never leave the server, even when they move to another partition.
update {storage} d set id = x.new_id, time = x.new_time, chunk = x.chunk, metadata = x.metadata::jsonb
from unnest(%(times)s::timestamptz[], %(ids)s::uuid[], %(new_times)s::timestamptz[], %(new_ids)s::uuid[],
            %(chunks)s::integer[], %(metadata)s::text[]) as x(time, id, new_time, new_id, chunk, metadata)
where d.time = x.time and d.id = x.id
