//! Variables that look like ours and are not.

use crate::os::env::Env;

/// How many letters may differ in a name that is meant.
const LETTERS: usize = 3;

/// A warning for each variable that begins with `prefix`, is set, and is none of `known`.
pub(crate) fn unknown_variables(env: &Env, prefix: &str, known: impl Iterator<Item = &'static str>) -> Vec<String> {
    let known: Vec<&str> = known.collect();
    let names = env.names(prefix).filter_map(|name| name.to_str());
    let unknown = names.filter(|name| !known.contains(name) && env.get(name).is_some());
    let warning = |name: &str| {
        let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
        let nearest = known.iter().min_by_key(|other| distance(other)).filter(|other| distance(other) <= LETTERS);
        match nearest {
            Some(nearest) => format!("{name} is not a setting, and has no effect: did you mean {nearest}?"),
            None => format!("{name} is not a setting, and has no effect: remove it"),
        }
    };
    unknown.map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_shown_if_it_is_near() {
        let env = Env::from([
            ("ETCDPROXY_ENDPOINT", "s3cret"),
            ("ETCDPROXY_LISTENADDR", "x"),
            ("ETCDPROXY_COLOUR", "blue"),
            ("ETCDPROXY_EMPTY", ""),
            ("ETCDPROXY_LISTEN_ADDR", "x"),
            ("ETCD_NAME", "x"),
        ]);
        let known = ["ETCDPROXY_ENDPOINTS", "ETCDPROXY_LISTEN_ADDR"];
        assert_eq!(
            unknown_variables(&env, "ETCDPROXY_", known.into_iter()),
            [
                "ETCDPROXY_COLOUR is not a setting, and has no effect: remove it",
                "ETCDPROXY_ENDPOINT is not a setting, and has no effect: did you mean ETCDPROXY_ENDPOINTS?",
                "ETCDPROXY_LISTENADDR is not a setting, and has no effect: did you mean ETCDPROXY_LISTEN_ADDR?",
            ]
        );
    }
}
