-- Partitions of the destination of each generation that has any.
select v.name, v.generation, count(*)
from {schema}.vectorizer v join pg_inherits i on i.inhparent = v.storage
where v.uninstalled_at is null
group by v.name, v.generation
