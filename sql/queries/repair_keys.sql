-- Queue keys for repair: with chunks = -1 the worker looks for their chunks everywhere. Dead letters stay.
with wanted as (
  select k.* from jsonb_to_recordset(%(keys)s::jsonb) as k({record})
), marked as (
  insert into {row} as r ({names}, chunks)
  select {names}, -1 from wanted order by {names}
  on conflict ({names}) do update set source_hash = null, chunks = -1 where r.lease is null and not r.dead
  returning {r_names}
)
insert into {log} ({names}) select {names} from marked
