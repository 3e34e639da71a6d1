insert into {schema}.provider as p (name, not_before, reason)
select {schema}.provider_of(definition), clock_timestamp() + make_interval(secs => %(seconds)s), %(reason)s
from {schema}.vectorizer where id = %(vectorizer)s
on conflict (name) do update set not_before = excluded.not_before, reason = excluded.reason
where p.not_before < excluded.not_before
