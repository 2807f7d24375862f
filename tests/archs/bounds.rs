//! How far a run with turbo types may be from others.

use super::trial::Run;

/// What a pair of types may do, in multiples of what q4_0 does to the same model: random models differ by orders of
/// magnitude in how much they make of a small error.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub types: &'static str,
    pub of_q4_0: f64,
    /// The largest divergence where q4_0 does not run.
    pub alone: f64,
}

/// The largest measured: 6.6 (talkie), 90 (qwen35) and 30 (glm5-next). The median over all models, 0.5 for turbo4, is what tells a type
/// that became worse; these tell a model whose cache is not read as it was written.
pub const TURBO4: Bounds = Bounds { types: "turbo4/turbo4", of_q4_0: 10.0, alone: 0.1 };
pub const TURBO32: Bounds = Bounds { types: "turbo3/turbo2", of_q4_0: 120.0, alone: 1.0 };
pub const TURBO3: Bounds = Bounds { types: "turbo3/turbo3", of_q4_0: 40.0, alone: 0.5 };

/// Below this, divergences are of the rounding of f16 and of other orders of sums, of which ratios say nothing.
const ROUNDING: f64 = 1e-5;
/// Ways that have the same keys give the same logits.
const EQUAL: f64 = 1e-5;

/// Errors: what is out of bounds.
pub fn check(run: &Run, exact: &Run, coarse: Option<&Run>, bounds: Bounds) -> Result<(), String> {
    let (from, of_coarse) = (run.from(exact), coarse.map(|coarse| coarse.from(exact)));
    let limit = of_coarse.map_or(bounds.alone, |of| bounds.of_q4_0 * of.max(ROUNDING));
    let within = |what: &str, value: f64, limit: f64| {
        let text = format!("{}: {what} {value:.2e}, at most {limit:.2e}", bounds.types);
        if value <= limit { Ok(()) } else { Err(text) }
    };
    within("divergence from f16", from, limit)?;
    // Other batches have other anchors, and other last bits that flip codes: an error of the types' own size.
    within("one by one", run.single, 2.0 * limit + exact.single)?;
    within("beside another sequence", run.other, EQUAL + 2.0 * exact.other)?;
    match (&run.state, &exact.state) {
        (Ok(state), Ok(exact)) => within("after a restored state", *state, EQUAL + 2.0 * exact)?,
        (Err(why), Ok(_)) => return Err(format!("{}: state: {why}", bounds.types)),
        (_, Err(_)) => {}
    }
    match (run.shift_from(exact), coarse.map(|coarse| coarse.shift_from(exact))) {
        // One token's divergence, which may be small by chance.
        (Some(shift), Some(Some(coarse))) => {
            let coarse = coarse.max(of_coarse.unwrap_or(0.0)).max(ROUNDING);
            within("after a shift", shift, 2.0 * bounds.of_q4_0 * coarse)?;
        }
        (Some(shift), _) => within("after a shift", shift, bounds.alone)?,
        (None, _) if exact.shifted.is_ok() => {
            return Err(format!("{}: shift: {:?}", bounds.types, run.shifted.as_ref().err()));
        }
        (None, _) => {}
    }
    Ok(())
}
