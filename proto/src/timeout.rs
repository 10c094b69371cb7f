//! How long a caller waits.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// The header `grpc-timeout` of a request; none for callers that say nothing, or nothing that can be read.
pub fn of(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

/// "gRPC over HTTP2", Timeout: at most eight digits and a unit.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let plain = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = plain.then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("119997m"), Some(Duration::from_millis(119_997)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("15S"), Some(Duration::from_secs(15)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("1H"), Some(Duration::from_secs(3600)));
        for bad in [
            "",
            "m",
            "S",
            "1",
            "1x",
            "5x",
            "123456789S",
            "-1S",
            "+1S",
            "é",
            "5é",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
