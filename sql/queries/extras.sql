-- What metrics show of each generation beside the view status.
select v.name, v.generation,
       (select count(*) from pg_inherits i where i.inhparent = v.storage) as partitions,
       coalesce(u.tokens_asked, 0) as tokens_asked_today, coalesce(u.texts_asked, 0) as texts_asked_today,
       coalesce(u.texts_sent, 0) as texts_today, p.unserved_reason is not null as unserved
from {schema}.vectorizer v
join {schema}.progress p on p.vectorizer = v.id
left join {schema}.usage u on u.vectorizer = v.id and u.day = {schema}.today()
where v.uninstalled_at is null
