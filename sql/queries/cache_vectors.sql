insert into {schema}.cache (space, content_hash, embedding)
select %(space)s, e.content_hash, e.embedding
from unnest(%(hashes)b::bytea[], %(vectors)b::bytea[]) as e(content_hash, embedding)
order by e.content_hash
on conflict do nothing
