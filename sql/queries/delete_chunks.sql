delete from {storage} d using unnest(%(times)s::timestamptz[], %(ids)s::uuid[]) as x(time, id)
where d.time = x.time and d.id = x.id
