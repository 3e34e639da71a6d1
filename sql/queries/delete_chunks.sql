delete from {storage} d using unnest(%(times)b::timestamptz[], %(ids)b::uuid[]) as x(time, id)
where d.time = x.time and d.id = x.id
