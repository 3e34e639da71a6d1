select {columns}, -1.0::float8 as distance
from {table}
where {condition}
order by id
limit {limit}
