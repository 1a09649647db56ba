// via's part of the browser. Datastar keeps the signals, runs the expressions and morphs the page; this script
// sends the actions and owns the stream, because Datastar's own loop stops on a clean end, never retries a 503,
// puts every signal into the stream's address, and aborts a click when the next one comes.
//
// The server speaks to it in two ways, and neither is ever a script:
//   GET  ?_via=stream   server-sent events: Datastar's own, handed on unchanged, and `via-notice`
//   POST ?_via=act      one JSON answer: { clear, notice, redirect, code }
import { action, getPath, mergePaths, startPeeking, stopPeeking } from './datastar.js'

const RETRY_FIRST_MS = 500
const RETRY_LONGEST_MS = 15_000
// A stream that lived this long was healthy, so the next failure starts the waits anew.
const HEALTHY_MS = 5_000
// The server says something every 15 s; after three silences the connection is dead, whatever the socket says.
const SILENCE_MS = 45_000
const ACTION_PATIENCE_MS = 15_000
const STALE_TRIES = 3
const QUEUE_LENGTH = 32
const NOTICE_MS = 10_000
const RELOAD_ONCE_MS = 30_000

const LOST = 'The connection was lost, and your last action may not have arrived.'
const BUSY = 'The server is busy. Please try again.'
const AWAY = 'Reconnecting…'
const UNRESTORABLE = 'This page could not be restored. It needs cookies to work.'

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? ''
const tab = meta('via-tab')
// Page, stream and action share one address, so whatever guards the page guards all three. It is taken now, because
// a page's own code may change what the address bar shows.
const { pathname, search } = location
const address = (what) => `${pathname}${search}${search ? '&' : '?'}_via=${what}`

const between = (least, most) => least + Math.random() * (most - least)
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const tellDatastar = (target, type, argsRaw) =>
  document.dispatchEvent(new CustomEvent('datastar-fetch', { detail: { type, el: target, argsRaw } }))

// ---- The notice: one visible line, read aloud by screen readers -------------------------------------------------

let noticeTimer = 0

function say(text, { stays = false } = {}) {
  const notice = document.getElementById('via-notice')
  clearTimeout(noticeTimer)
  notice.textContent = text
  notice.hidden = !text
  if (text && !stays) noticeTimer = setTimeout(() => say(''), NOTICE_MS)
}

// The server no longer knows this tab: a fresh document gives it a new token. Once, so that a browser that keeps
// no cookies does not reload for ever.
function reload() {
  const last = Number(sessionStorage.getItem('via-reload') ?? 0)
  if (Date.now() - last < RELOAD_ONCE_MS) return say(UNRESTORABLE, { stays: true })
  sessionStorage.setItem('via-reload', String(Date.now()))
  location.reload()
}

// ---- The stream: open while the tab is seen, reopened for ever ---------------------------------------------------

let frame = meta('via-frame')
let stream = null
let failures = 0
let hint = 0
let retryTimer = 0
let silenceTimer = 0

const show = (state) => document.documentElement.setAttribute('data-via-stream', state)

async function follow() {
  clearTimeout(retryTimer)
  if (stream || document.hidden) return
  const mine = (stream = new AbortController())
  let opened = 0
  try {
    watch(mine)
    const response = await fetch(address('stream'), {
      headers: { accept: 'text/event-stream', 'via-tab': tab, 'via-frame': frame },
      cache: 'no-store',
      signal: mine.signal,
    })
    if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
      opened = performance.now()
      live()
      await listen(response.body, mine)
    } else {
      await refused(response)
    }
  } catch {
    // The network failed or the stream was closed on purpose; both are told apart below.
  }
  if (stream !== mine) return
  clearTimeout(silenceTimer)
  stream = null
  if (opened && performance.now() - opened > HEALTHY_MS) failures = 0
  retry()
}

function live() {
  if (failures > 2) say('')
  show('live')
}

function retry() {
  show('waiting')
  if (failures > 2) say(AWAY, { stays: true })
  // The server's hint spreads out the tabs of a pod that is going away; without one the waits double.
  const longest = hint || Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** failures)
  hint = 0
  failures = Math.min(failures + 1, 16)
  retryTimer = setTimeout(follow, between(longest / 4, longest))
}

function close() {
  clearTimeout(retryTimer)
  clearTimeout(silenceTimer)
  stream?.abort()
  stream = null
  show('hidden')
}

function watch(mine) {
  clearTimeout(silenceTimer)
  silenceTimer = setTimeout(() => mine.abort(), SILENCE_MS)
}

async function refused(response) {
  const { code } = await response.json().catch(() => ({}))
  // A guard that redirects the stream wants the person to see another page.
  if (code === 'reload' || response.redirected) reload()
}

async function listen(body, mine) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    watch(mine)
    const blocks = (text + value).split('\n\n')
    text = blocks.pop()
    // A stream that was closed meanwhile must not patch the page any more.
    if (stream !== mine) return
    blocks.forEach(receive)
  }
}

function receive(block) {
  let event = ''
  let id = null
  const args = {}
  for (const line of block.split('\n')) {
    const [, field, value] = /^(\w*): ?(.*)$/s.exec(line) ?? []
    if (field === 'event') event = value
    else if (field === 'id') id = value
    else if (field === 'retry') hint = Number(value) || 0
    else if (field === 'data') {
      const space = value.indexOf(' ')
      ;(args[value.slice(0, space)] ??= []).push(value.slice(space + 1))
    }
  }
  const joined = Object.fromEntries(Object.entries(args).map(([name, lines]) => [name, lines.join('\n')]))
  if (event === 'via-notice') say(joined.text ?? '')
  else if (event.startsWith('datastar-')) tellDatastar(document.documentElement, event, joined)
  if (id !== null) frame = id
}

// ---- Actions: one at a time, in order, none dropped ---------------------------------------------------------------

const queue = []

// The view's root names the signals its component has; only those are sent, as they are at the click.
function signals() {
  const seeds = JSON.parse(document.getElementById('via-view').getAttribute('data-signals__ifmissing') ?? '{}')
  const values = {}
  const collect = (seed, path) => {
    if (seed !== null && typeof seed === 'object') {
      for (const name in seed) collect(seed[name], path ? `${path}.${name}` : name)
    } else {
      values[path] = getPath(path) ?? seed
    }
  }
  startPeeking()
  try {
    collect(seeds, '')
  } finally {
    stopPeeking()
  }
  return values
}

action({
  name: 'act',
  apply({ el }, token) {
    if (queue.length >= QUEUE_LENGTH) return say(BUSY)
    queue.push({ el, token, sent: signals() })
    tellDatastar(el, 'started', {})
    if (queue.length === 1) drain()
  },
})

async function drain() {
  while (queue.length) {
    const { el, token, sent } = queue[0]
    try {
      await perform(token, sent)
    } finally {
      queue.shift()
      tellDatastar(el, 'finished', {})
    }
  }
}

async function perform(token, sent) {
  const start = performance.now()
  for (let tries = 1; ; tries++) {
    const answer = await post(token, sent)
    if (!answer) return say(LOST)
    // Both codes mean that nothing was run, so sending again cannot do anything twice.
    const again = answer.code === 'unavailable' || (answer.code === 'stale_action' && tries < STALE_TRIES)
    if (!again || performance.now() - start > ACTION_PATIENCE_MS) return accept(answer, sent)
    await pause(between(200, 400 * tries))
  }
}

// The answer, or nothing when there was none: then it is unknown whether the action ran, and it is not repeated.
async function post(token, sent) {
  try {
    const response = await fetch(address('act'), {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'via-tab': tab, 'via-token': token },
      body: JSON.stringify(sent),
    })
    if (response.redirected) return { code: 'reload' }
    return await response.json()
  } catch {
    return null
  }
}

function accept({ clear = {}, notice = '', redirect, code }, sent) {
  // What was typed since the click stays.
  const unchanged = Object.entries(clear).filter(([path]) => getPath(path) === sent[path])
  if (unchanged.length) mergePaths(unchanged)
  if (code === 'reload') return reload()
  say(notice)
  if (redirect) location.assign(redirect)
}

// ---- Start --------------------------------------------------------------------------------------------------------

// Browsers allow six connections per host under HTTP/1.1: a tab nobody sees gives its own back.
document.addEventListener('visibilitychange', () => (document.hidden ? close() : follow()))
// An open stream would keep the page out of the back/forward cache.
addEventListener('pagehide', close)
addEventListener('pageshow', follow)
addEventListener('online', follow)
follow()
