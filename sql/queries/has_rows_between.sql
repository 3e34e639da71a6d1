select exists (select from {storage} where time >= %(start)s and time < %(end)s)
