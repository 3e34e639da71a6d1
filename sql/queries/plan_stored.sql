array(select d.content_hash from {reuse} d where {s_matches_d})
