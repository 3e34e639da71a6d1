-- Nothing comes back when the vectorizer was paused or uninstalled meanwhile: the claim is then undone.
insert into {schema}.lease (token, vectorizer, worker, keys, expires_at)
select %(token)s, id, %(worker)s,
       (select jsonb_agg(e.one) from unnest(%(keys)b::text[]) as c(claimed), jsonb_array_elements(c.claimed::jsonb) as e(one)),
       clock_timestamp() + make_interval(secs => %(seconds)s)
from {schema}.vectorizer
where id = %(vectorizer)s and paused_at is null and uninstalled_at is null
returning token
