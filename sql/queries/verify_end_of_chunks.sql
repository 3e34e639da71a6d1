union all
(select {d_names} from {storage} d {after_d} order by {d_names} offset %(rows)s - 1 limit 1)
