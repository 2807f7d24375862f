//! `turboquant run`: a prompt or a chat.

mod chat;
mod input;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use llama_turboquant::llama::{
    ChatMessage, Context, ContextParams, Finish, GenerateOptions, MemoryUse, Model, Sampler,
    Timings,
};
use signal_hook::{consts::SIGINT, flag};

use crate::args::{KeyArgs, ModelArgs, TypeArgs};
use crate::{Exit, progress, prompt};

/// Run a model: one prompt, or a chat on a terminal.
///
/// The answer goes to stdout as it comes; a last line on stderr says what it took. Ctrl-C stops an answer, a second one
/// ends the program.
///
/// What is piped in is the prompt; with -p or -f it follows on that, after an empty line:
/// `turboquant run -m MODEL -p "What is wrong here?" < build.log`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// What to ask [default: what is piped in, or a chat].
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with what to ask, UTF-8.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Go on with the prompt as it is, without a chat template.
    #[arg(long)]
    raw: bool,
    /// How the assistant is to behave [also: -sys].
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system_prompt: Option<String>,
    /// Tokens of context; 0: as many as the model was trained with [default: 4096, or those if they are fewer].
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<u32>,
    /// Tokens of an answer; -1: until the model ends it or the context is full.
    #[arg(short = 'n', long, value_name = "N", default_value_t = -1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(-1..))]
    predict: i64,
    /// Temperature; 0: always the most likely token.
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temp: f32,
    /// Choose among the N most likely tokens; 0: all.
    #[arg(long, value_name = "N", default_value_t = 40)]
    top_k: u32,
    /// Choose among the most likely tokens of this probability together; 1: all.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Choose among tokens at least P times as likely as the likeliest; 0: all.
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    min_p: f32,
    /// Seed of what is drawn [default: a random one].
    #[arg(short, long, value_name = "N")]
    seed: Option<u32>,
    /// Keep all tokens also in layers with a sliding window. Chats do.
    #[arg(long)]
    swa_full: bool,
    #[command(flatten)]
    types: TypeArgs,
    #[command(flatten)]
    keys: KeyArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let prompt = input::prompt(args)?;
    let model = args.model.load()?;
    let context = Context::new(&model, &context_params(args, &model, prompt.is_none()))?;
    let mut sampler = sampler(args, &model)?;
    let interrupt = Interrupt::new(context.abort_flag())?;
    match prompt {
        Some(prompt) => once(args, context, &mut sampler, &prompt),
        None => chat::run(args, context, &mut sampler, &interrupt),
    }
}

/// `chat`: sequences are rolled back, for which layers with a sliding window need all tokens.
fn context_params(args: &Args, model: &Model, chat: bool) -> ContextParams {
    let (k, v) = args.types.types();
    let mut params = ContextParams::default()
        .n_ctx(args.ctx_size.unwrap_or_else(|| model.n_ctx_train().clamp(1, 4096)))
        .swa_full(chat || args.swa_full)
        .cache_types(k, v)
        .kv_anchors(args.keys.anchors())
        .flash_attention(args.keys.flash_attention());
    if let Some(n) = args.model.threads {
        params = params.n_threads(n);
    }
    match args.keys.calibration().or(args.types.calibration()) {
        Some(calibration) => params.kv_calibration(calibration),
        None => params,
    }
}

fn sampler(args: &Args, model: &Arc<Model>) -> Result<Sampler> {
    if args.temp <= 0.0 {
        return Ok(Sampler::greedy(model)?);
    }
    let steps = Sampler::builder(model)
        .top_k(args.top_k)
        .top_p(args.top_p, 1)
        .min_p(args.min_p, 1)
        .temperature(args.temp);
    Ok(steps.dist(args.seed.unwrap_or(u32::MAX))?)
}

fn options(args: &Args) -> GenerateOptions<'static> {
    GenerateOptions::default().max_tokens(usize::try_from(args.predict).unwrap_or(usize::MAX))
}

/// One prompt.
fn once(args: &Args, mut context: Context, sampler: &mut Sampler, prompt: &str) -> Result<()> {
    let tokens = prompt::tokens(context.model(), prompt, args.raw, first_messages(args))?;
    let n_ctx = context.n_ctx_seq() as usize;
    if tokens.len() > n_ctx {
        bail!("the prompt has {} tokens, the context room for {n_ctx}: raise -c", tokens.len());
    }
    // The last token of an answer is not decoded.
    let room = n_ctx - tokens.len() + 1;
    let wanted = usize::try_from(args.predict).unwrap_or(usize::MAX);
    let options = GenerateOptions::default().max_tokens(wanted.min(room));
    let mut generation = context.generate(&tokens, sampler, options);
    for piece in generation.by_ref() {
        crate::print(&piece?.text)?;
    }
    crate::print("\n")?;
    let (timings, n_tokens) = (generation.timings(), generation.tokens().len());
    let finish = generation.finish().cloned();
    drop(generation);
    if finish == Some(Finish::MaxTokens) && wanted > room {
        progress::message("the context is full: raise -c for more");
    }
    progress::message(&took(&timings, n_tokens, &context.memory_use()?));
    match finish {
        Some(Finish::Cancelled) => Err(Exit::interrupted()),
        _ => Ok(()),
    }
}

/// What a chat begins with.
fn first_messages(args: &Args) -> Vec<ChatMessage> {
    args.system_prompt.iter().map(ChatMessage::system).collect()
}

/// `prompt 31 tokens at 212.0 t/s, ...`
fn took(timings: &Timings, n_tokens: usize, memory: &MemoryUse) -> String {
    let first = timings.to_first_token.unwrap_or_default().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "prompt {} tokens, {:.1} t/s; answer {n_tokens} tokens, {:.1} t/s; first token after {first:.2} s; KV cache \
         {:.2} MiB (K {:.2}, V {:.2})",
        timings.n_prompt,
        timings.prompt_per_second(),
        timings.decode_per_second(),
        mib(memory.kv()),
        mib(memory.k),
        mib(memory.v),
    )
}

/// What Ctrl-C does: it sets a flag, which stops an answer; where the flag is set already, it ends the program.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// `flag`: what stops an answer.
    fn new(flag: Arc<AtomicBool>) -> Result<Self> {
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&flag))?;
        flag::register(SIGINT, Arc::clone(&flag))?;
        Ok(Self(flag))
    }

    /// From now on there is no answer to stop.
    fn idle(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// From now on there is.
    fn answering(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
