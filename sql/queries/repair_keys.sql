-- Queue keys for repair: with chunks = -1 the worker looks for their chunks everywhere. Dead letters stay.
with wanted as (
  select k.* from unnest(%(keys)s::jsonb[]) as u(key), jsonb_to_record(u.key) as k({record})
), marked as (
  insert into {row} as r ({names}, chunks)
  select {names}, -1 from wanted order by {names}
  on conflict ({names}) do update set source_hash = null, chunks = -1, lease = null
    where not r.dead and not exists (select from {schema}.lease h where h.token = r.lease)
  returning {r_names}
)
insert into {log} ({names}) select {names} from marked
