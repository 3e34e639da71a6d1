-- Of chores that were taken those that may have something to do: a hundred vectorizers would otherwise be
-- asked one by one, several times a minute, whether there is anything.
select v.name, v.id, t.task
from unnest(%(vectorizers)s::integer[], %(tasks)s::text[]) as t(vectorizer, task)
join {schema}.vectorizer v on v.id = t.vectorizer
join {schema}.progress p on p.vectorizer = v.id
where case t.task
  when 'reap' then exists (
    select from {schema}.lease l where l.vectorizer = v.id and l.expires_at < clock_timestamp())
  when 'follow' then p.parts is null or cardinality(p.parts) > 1
    or exists (select from pg_inherits i where i.inhparent = v.source)
  when 'view' then v.destination is not null and not exists (select from pg_class c where c.oid = v.destination)
  when 'vacuum' then exists (
    select from pg_class c where c.relname = v.log_table and pg_stat_get_dead_tuples(c.oid) > 0)
  when 'partitions' then v.definition ? 'partition_interval'
  when 'retention' then v.definition ? 'retention'
  when 'cache' then v.definition ? 'cache'
  when 'index' then v.definition ? 'index'
  else true end
order by v.id, t.task
