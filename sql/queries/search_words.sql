select {columns}, {distance} as distance, ts_rank_cd({words}, wanted)::float8 as score
from {table}, {query} wanted
where {words} @@ wanted and {condition}
order by score desc, id
limit {limit}
