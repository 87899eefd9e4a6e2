//! Help texts and error lines, as files in `tests/cmd`. `TRYCMD=overwrite` writes them anew.

#[test]
fn help_texts_and_error_lines() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("etcdproxy", crate::support::binary());
    cases.env("ETCDPROXY_UNPACK_DIR", "/no/such/dir").env("COLUMNS", "100");
    cases.case("tests/cmd/*.trycmd");
}
