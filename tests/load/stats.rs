//! Percentiles of samples, rounding of figures, and the exponent of a growth curve.

use std::time::Duration;

/// The quantile at `share` from 0 to 1, interpolated; the median of an even count is the mean of
/// the middle two. NaN without samples.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = share * (sorted.len() - 1) as f64;
    #[allow(clippy::cast_sign_loss, reason = "a share from 0 to 1 makes an index from 0 up")]
    let (low, high) = (sorted[index.floor() as usize], sorted[index.ceil() as usize]);
    low + (high - low) * index.fract()
}

pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

pub fn min(samples: &[f64]) -> f64 {
    quantile(samples, 0.0)
}

pub fn max(samples: &[f64]) -> f64 {
    quantile(samples, 1.0)
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Rounds to four significant digits; such measurements are no more precise.
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// `k` of the best fit `y = a * x^k`, by least squares over the logarithms.
pub fn fit_exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(x, y)| *x > 0.0 && *y > 0.0)
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    if logs.len() < 2 {
        return None;
    }
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
    let variance = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let covariance = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
    (variance > 0.0).then(|| covariance / variance)
}
