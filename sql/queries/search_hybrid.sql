with by_meaning as (
  select id, row_number() over (order by distance) as place
  from (select id, {distance} as distance from {table} where {condition} order by distance limit {candidates}) nearest
), by_words as (
  select id, row_number() over (order by rank desc, id) as place
  from (select id, ts_rank_cd({words}, wanted) as rank from {table}, {query} wanted
        where {words} @@ wanted and {condition_again} order by rank desc, id limit {candidates}) best
), fused as (
  select id, sum(weight / ({smoothing} + place))::float8 as score
  from (select id, place, {weight_of_meaning}::float8 as weight from by_meaning
        union all select id, place, {weight_of_words}::float8 from by_words) places
  group by id order by score desc, id limit {limit}
)
select {columns}, {distance} as distance, score
from {table} join fused using (id)
order by score desc, id
