-- The oldest changed keys that nobody holds. Every scanned entry of a claimed key goes: many changes of a
-- row are one piece of work. Of a key in flight only the newest entry stays, to be claimed after.
with picked as materialized (
  select l.seq, l.kind, {l_names},
         -- Correlated on purpose: as a join it becomes a hash over the whole ledger on unanalyzed tables.
         (select r.lease is not null or (r.losses > 0 and not r.dead) from {row} r where {row_matches_l}) as held
  from {log} l
  where l.seq >= %(from_seq)s
  order by l.seq
  limit %(scan)s
  for update of l skip locked
), distinct_keys as materialized (
  select {names}, min(seq) as first_seq from picked where kind = 'r' and held is not true group by {names}
), wanted as (
  select {names} from distinct_keys order by first_seq limit %(rows)s
), won as (
  insert into {row} as r ({names}, lease)
  select {names}, %(token)s from wanted order by {names}
  on conflict ({names}) do update set lease = excluded.lease, available_at = null where r.lease is null
  returning {r_names}
), done as (
  select p.seq from picked p, won k where p.held is not true and {p_matches_k}
  union all
  select seq from (
    select seq, max(seq) over (partition by {names}) as newest from picked where held) as h where seq < newest
), gone as (
  delete from {log} l using done where l.seq = done.seq
)
select case when k is not null then {k_key_object} end as key, s.truncates, s.scanned, s.last_seq,
       coalesce(s.first_unwanted, s.last_seq + 1) as next_seq
from (
  select array_agg(seq) filter (where kind = 't') as truncates, count(*) as scanned, max(seq) as last_seq,
         (select first_seq from distinct_keys order by first_seq offset %(rows)s limit 1) as first_unwanted
  from picked) s
left join won k on true
