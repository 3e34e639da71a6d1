select {columns}, {distance} as distance
from {table}
where {condition}
{order}
limit {limit}
