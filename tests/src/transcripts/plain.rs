//! Output of dig and kdig without what is different each time.

use std::net::IpAddr;

/// What stands for the end of a server cookie: its time and its hash.
pub(super) const SERVER_COOKIE: &str = "<time><hash>";
/// What stands for the cookie that a client made up.
const CLIENT_COOKIE: &str = "<client>";
/// Digits of a client cookie.
const CLIENT_DIGITS: usize = 16;
/// Digits in front of a server cookie's time: the client's, version and reserved octets.
const HEAD_DIGITS: usize = CLIENT_DIGITS + 8;

/// Lines that are left out, by their start: versions, times, and what is known anyway.
const OMITTED: [&str; 8] = [
    "; <<>> DiG",
    "; (1 server found)",
    ";; global options:",
    ";; Query time:",
    ";; WHEN:",
    ";; Time ",
    "  \"dateString\":",
    "  \"dateSeconds\":",
];

/// What a reader is shown of the output of a command.
pub(super) fn output(command: &str, output: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in output.lines() {
        let is_gap = line.is_empty() && lines.last().is_none_or(String::is_empty);
        if !is_gap && !OMITTED.iter().any(|start| line.starts_with(start)) {
            lines.push(plain(command, line));
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    sort_addresses(&mut lines);
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// Time and hash of the server cookie in the output of a command.
pub(super) fn cookie(output: &str) -> Option<String> {
    let rest = output.split_once("COOKIE: ")?.1;
    Some(digits(rest).get(HEAD_DIGITS..)?.to_owned()).filter(|cookie| !cookie.is_empty())
}

/// A line without id, cookie and duration.
fn plain(command: &str, line: &str) -> String {
    if let Some((start, rest)) = line.split_once("COOKIE: ") {
        let cookie = digits(rest);
        let plain = plain_cookie(command, cookie);
        return format!("{start}COOKIE: {plain}{}", &rest[cookie.len()..]);
    }
    if let Some((start, id)) = line
        .split_once("id: ")
        .filter(|_| line.contains("HEADER<<-"))
    {
        let end = id.trim_start_matches(|c: char| c.is_ascii_digit());
        return format!("{start}id: …{end}");
    }
    if line.starts_with("  \"ID\":") {
        return "  \"ID\": 0,".to_owned();
    }
    match line.split_once(" in ") {
        Some((from, time)) if time.ends_with(" ms") => from.to_owned(),
        _ => line.to_owned(),
    }
}

/// A cookie, of which only what the command says itself stays.
fn plain_cookie(command: &str, cookie: &str) -> String {
    let (Some(client), Some(head)) = (cookie.get(..CLIENT_DIGITS), cookie.get(..HEAD_DIGITS))
    else {
        return cookie.to_owned();
    };
    let shown = if command.contains(client) {
        client
    } else {
        CLIENT_COOKIE
    };
    format!("{shown}{}{SERVER_COOKIE}", &head[CLIENT_DIGITS..])
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_hexdigit());
    &text[..end.unwrap_or(text.len())]
}

/// Sorts neighbouring addresses of one name, which take turns.
fn sort_addresses(lines: &mut [String]) {
    let is_same = |a: &String, b: &String| {
        address(a)
            .zip(address(b))
            .is_some_and(|((a, _), (b, _))| a == b)
    };
    for run in lines.chunk_by_mut(is_same) {
        run.sort_by_key(|line| address(line).map(|(_, address)| address));
    }
}

/// The owner of an address record, and the address.
fn address(line: &str) -> Option<(&str, IpAddr)> {
    let mut words = line.split_whitespace();
    let owner = words.next()?;
    // TTL, class and type stand before it.
    Some((owner, words.nth(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIG: &str = "
; <<>> DiG 9.18 <<>> @198.51.100.130 www.example.com
; (1 server found)
;; global options: +cmd
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 4711

; COOKIE: 0011223344556677010000006a3f81b2b1c6a7d0e2f30415 (good)
;; ANSWER SECTION:
www.example.com.\t30\tIN\tA\t203.0.113.70
www.example.com.\t30\tIN\tA\t198.51.100.134

;; Query time: 3 msec
;; WHEN: Sun Nov 22 15:00:00 UTC 2026
;; MSG SIZE  rcvd: 179

";

    #[test]
    fn what_differs_from_run_to_run_is_left_out_or_named() {
        let rest = "
;; ANSWER SECTION:
www.example.com.\t30\tIN\tA\t198.51.100.134
www.example.com.\t30\tIN\tA\t203.0.113.70

;; MSG SIZE  rcvd: 179
";
        let head = ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: …\n";
        for (command, cookie) in [
            ("dig", "<client>01000000<time><hash>"),
            (
                "dig +cookie=0011223344556677",
                "001122334455667701000000<time><hash>",
            ),
        ] {
            let want = format!("{head}\n; COOKIE: {cookie} (good){rest}");
            assert_eq!(output(command, DIG), want);
        }
        assert_eq!(cookie(DIG).unwrap(), "6a3f81b2b1c6a7d0e2f30415");
    }

    #[test]
    fn kdig_lines() {
        let rows = [
            (
                ";; From 192.0.2.1@53(UDP) in 0.3 ms",
                ";; From 192.0.2.1@53(UDP)",
            ),
            (
                ";; ->>HEADER<<- opcode: QUERY; status: NOERROR; id: 7",
                ";; ->>HEADER<<- opcode: QUERY; status: NOERROR; id: …",
            ),
            ("  \"ID\": 4711,", "  \"ID\": 0,"),
            ("txt. 1 IN TXT \"id: 7\"", "txt. 1 IN TXT \"id: 7\""),
        ];
        for (line, want) in rows {
            assert_eq!(plain("kdig", line), want);
        }
    }
}
