-- Given keys that nobody holds, whether they changed or not. What stands in the log of them stays there:
-- whoever claims it finds the row unchanged.
with wanted as materialized (
  select distinct {names} from jsonb_to_recordset(%(keys)s::jsonb) as k({record})
), won as (
  insert into {row} as r ({names}, lease)
  select {names}, %(token)s from wanted order by {names}
  on conflict ({names}) do update set lease = excluded.lease, available_at = null where r.lease is null
  returning {r_names}
)
select count(*), jsonb_agg({key_object})::text as keys,
       (select jsonb_agg({key_object}) from (select {names} from wanted except select {names} from won) as e)::text as held
from won
