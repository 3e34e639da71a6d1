-- Chunks that stay: their vectors never leave the server, even when they move to another partition.
update {storage} d set id = x.new_id, time = x.new_time, chunk = x.chunk, metadata = x.metadata::jsonb,
  content_hash = coalesce(x.content_hash, d.content_hash), contents = coalesce(x.contents, d.contents)
from unnest(%(times)b::timestamptz[], %(ids)b::uuid[], %(new_times)b::timestamptz[], %(new_ids)b::uuid[],
            %(chunks)b::integer[], %(metadata)b::text[], %(content_hashes)b::bytea[], %(contents)b::text[])
     as x(time, id, new_time, new_id, chunk, metadata, content_hash, contents)
where d.time = x.time and d.id = x.id
