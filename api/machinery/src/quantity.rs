//! Kubernetes quantities: `100m`, `1.5Gi`, `3e6`. Parsed, compared and written in canonical form.
//!
//! The value is kept exactly, in billionths (the smallest unit there is; what is finer rounds up, away from
//! zero). What exceeds 2^63-1 is cut to it, as Kubernetes does.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A fixed-point number with the notation in which it was given.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The family of suffixes a quantity is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, …
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, …
    DecimalSi,
    /// `e3`, `e-6`, …
    DecimalExponent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Number,
}

const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;
/// Digits before the decimal point that can be held.
const MAX_DIGITS: usize = 28;
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// What a suffix multiplies by.
enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Quantity {
    pub fn from_integer(value: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(value) * NANOS,
            format,
        }
    }

    pub fn from_millis(value: i64, format: Format) -> Self {
        Self {
            nanos: i128::from(value) * (NANOS / 1000),
            format,
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The integer at or next away from zero.
    pub fn value(&self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANOS))
    }

    /// In thousandths, rounded away from zero; what does not fit is cut.
    pub fn milli_value(&self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANOS / 1000))
    }

    /// The sum, in this one's notation.
    pub fn plus(self, other: Self) -> Self {
        Self {
            nanos: clamp(self.nanos.saturating_add(other.nanos)),
            ..self
        }
    }

    /// The difference, in this one's notation.
    pub fn minus(self, other: Self) -> Self {
        Self {
            nanos: clamp(self.nanos.saturating_sub(other.nanos)),
            ..self
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let number_len = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (scale, format) = parse_suffix(suffix)?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Number);
        }
        let nanos = match scale {
            Scale::Decimal(exponent) => scaled_decimal(whole, fraction, exponent),
            Scale::Binary(shift) => nanos(whole, fraction, 1 << shift),
        };
        let nanos = clamp(if text.starts_with('-') { -nanos } else { nanos });
        Ok(Self { nanos, format })
    }
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Binary(*shift), Format::BinarySi));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Decimal(*exponent), Format::DecimalSi));
    }
    let error = if suffix_is_spelled_right(suffix) {
        QuantityError::Suffix
    } else {
        QuantityError::Format
    };
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(error)?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error);
    }
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Scale::Decimal(exponent), Format::DecimalExponent))
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn suffix_is_spelled_right(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

/// `whole.fraction * 10^exponent`, by moving the decimal point.
fn scaled_decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return 0;
    }
    let point = significant.len() as i64 - fraction.len() as i64 + i64::from(exponent);
    match usize::try_from(point) {
        Ok(point) if point > MAX_DIGITS => MAX_NANOS,
        Ok(point) if point >= significant.len() => nanos(&format!("{significant:0<point$}"), "", 1),
        Ok(point) => nanos(&significant[..point], &significant[point..], 1),
        // Finer than the smallest unit by far, or padded with zeros.
        Err(_) if point < -9 => 1,
        Err(_) => nanos(
            "",
            &format!("{}{significant}", "0".repeat(point.unsigned_abs() as usize)),
            1,
        ),
    }
}

/// `whole.fraction * factor` in billionths, rounded up.
fn nanos(whole: &str, fraction: &str, factor: i128) -> i128 {
    let whole = whole.trim_start_matches('0');
    if whole.len() > MAX_DIGITS {
        return MAX_NANOS;
    }
    let whole = digits_of(whole).saturating_mul(factor).saturating_mul(NANOS);
    let kept = fraction.len().min(19);
    let finer = fraction[kept..].bytes().any(|byte| byte != b'0');
    let fraction = digits_of(&fraction[..kept]) * 10i128.pow(19 - kept as u32) * factor;
    let fraction = divide_away_from_zero(fraction + i128::from(finer), 10i128.pow(10));
    whole.saturating_add(fraction)
}

fn digits_of(text: &str) -> i128 {
    text.bytes()
        .fold(0, |value, byte| value * 10 + i128::from(byte - b'0'))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANOS;
        let small = whole.abs() < 1024;
        if self.format == Format::BinarySi && !small && self.nanos % NANOS == 0 {
            return write_binary(f, whole);
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        write!(f, "{value}")?;
        match self.format {
            Format::DecimalExponent if exponent == 0 => Ok(()),
            Format::DecimalExponent => write!(f, "e{exponent}"),
            _ => f.write_str(
                DECIMAL
                    .iter()
                    .find(|(_, e)| *e == exponent)
                    .map_or("", |(name, _)| name),
            ),
        }
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut value: i128) -> fmt::Result {
    let mut suffix = "";
    for (name, _) in BINARY {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = name;
    }
    write!(f, "{value}{suffix}")
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

fn clamp(nanos: i128) -> i128 {
    nanos.clamp(-MAX_NANOS, MAX_NANOS)
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    (value.abs() + by - 1) / by * value.signum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-5", "-5"),
            ("1000", "1k"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("2000m", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.001", "1m"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("1.1234567891", "1123456790n"),
            ("100n", "100n"),
            ("100000n", "100u"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.5Mi", "512Ki"),
            ("1000Ki", "1000Ki"),
            ("1.0001Ki", "1024102400u"),
            ("-2Mi", "-2Mi"),
            ("1k", "1k"),
            ("1E", "1E"),
            ("100E", "9223372036854775807"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1e-3", "1e-3"),
            ("12e6", "12e6"),
            ("1200e4", "12e6"),
            ("1e0", "1"),
            ("1e1", "10"),
            ("1e18", "1e18"),
            ("1e21", "9223372036854775807"),
            ("1e-20", "1e-9"),
            ("1e100", "9223372036854775807"),
            ("1000Ei", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("123456789012345678901234567890", "9223372036854775807"),
        ];
        for (text, expected) in cases {
            let quantity: Quantity = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(quantity.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        let cases = [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Ki", QuantityError::Format),
            ("--1", QuantityError::Suffix),
            ("1Ki1i", QuantityError::Format),
            ("1x", QuantityError::Format),
            (".", QuantityError::Number),
            ("1.2.3", QuantityError::Format),
            ("Ki", QuantityError::Number),
            ("1K", QuantityError::Suffix),
            ("1ki", QuantityError::Suffix),
            ("1mi", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e+", QuantityError::Suffix),
            ("1EE3", QuantityError::Suffix),
        ];
        for (text, expected) in cases {
            assert_eq!(
                text.parse::<Quantity>().map(|quantity| quantity.to_string()),
                Err(expected),
                "{text:?}"
            );
        }
    }

    #[test]
    fn values_compare_across_notations_and_round_away_from_zero() {
        let quantity = |text: &str| text.parse::<Quantity>().expect("a quantity");
        assert_eq!(quantity("1Ki"), quantity("1024"));
        assert_eq!(quantity("1000m"), quantity("1e0"));
        assert!(quantity("1Gi") > quantity("1G"));
        assert!(quantity("-1") < quantity("1m"));
        assert_eq!((quantity("1500m").value(), quantity("1u").milli_value()), (2, 1));
        assert_eq!(
            (quantity("-1500m").value(), quantity("2").milli_value()),
            (-2, 2000)
        );
        assert_eq!(quantity("1Gi").plus(quantity("512Mi")).to_string(), "1536Mi");
        assert_eq!(quantity("1").minus(quantity("250m")).to_string(), "750m");
        assert_eq!(quantity("100E").value(), i64::MAX);
    }

    fn text() -> impl Strategy<Value = String> {
        const SUFFIXES: [&str; 19] = [
            "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-4",
            "e12",
        ];
        (
            "[+-]?[0-9]{1,12}([.][0-9]{0,12})?",
            prop::sample::select(&SUFFIXES[..]),
        )
            .prop_map(|(number, suffix)| format!("{number}{suffix}"))
    }

    proptest! {
        #[test]
        fn a_canonical_form_is_its_own_and_has_the_same_value(text in text()) {
            let quantity: Quantity = text.parse().expect("a quantity");
            let canonical = quantity.to_string();
            let again: Quantity = canonical.parse().expect("a canonical form");
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), canonical);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-+0-9.eEinumkKMGTP]{0,12}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn integers_keep_their_order(a in any::<i64>(), b in any::<i64>()) {
            let (x, y): (Quantity, Quantity) = (a.to_string().parse().expect("a"), b.to_string().parse().expect("b"));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.value(), a);
        }
    }
}
