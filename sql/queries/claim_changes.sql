-- Changed keys that nobody holds, in the order of the log's heap. Every scanned entry of a claimed key
-- goes: many changes of a row are one piece of work. Of a key in flight one entry stays, to be claimed
-- after.
with picked as materialized (
  select l.ctid as place, l.kind, l.at, {l_names},
         -- Correlated on purpose: as a join it becomes a hash over the whole ledger on unanalyzed tables.
         (select r.lease is not null or (r.losses > 0 and not r.dead) from {row} r where {row_matches_l}) as held
  from {log} l
  where l.ctid >= %(from_place)s::tid
  limit %(scan)s
  for update of l skip locked
), distinct_keys as materialized (
  select {names}, min(place) as first_place, min(at) as at from picked where kind = 'r' and held is not true group by {names}
), wanted as (
  select {names}, at from distinct_keys order by first_place limit %(rows)s
), won as (
  insert into {row} as r ({names}, lease)
  select {names}, %(token)s from wanted order by {names}
  on conflict ({names}) do update set lease = excluded.lease, available_at = null where r.lease is null
  returning {r_names}
), done as materialized (
  -- Inside CASE the sublink becomes a hash of the keys, whatever joins are allowed.
  select place from picked
  where case when held is not true then ({names}) in (select {names} from won) end
  union all
  select place from (
    select place, max(place) over (partition by {names}) as kept from picked where held) as h where place < kept
), gone as (
  delete from {log} l where l.ctid = any (array(select place from done))
)
select w.count, w.keys, (select min(at) from wanted) as oldest, s.truncates, s.scanned, s.first_unwanted::text, s.last_place::text
from (
  select array_agg(place::text) filter (where kind = 't') as truncates, count(*) as scanned,
         max(place) as last_place,
         (select first_place from distinct_keys order by first_place offset %(rows)s limit 1) as first_unwanted
  from picked) s, (select count(*), jsonb_agg({key_object})::text as keys from won) w
