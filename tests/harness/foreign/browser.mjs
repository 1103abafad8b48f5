// Visits the demo site as a person does: browser.mjs NODE_MODULES CHROMIUM BASE_URL SCREENSHOT_FOLDER.
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, chromium, base, pictures] = process.argv.slice(2);
const { chromium: browserType } = createRequire(join(modules, "x.js"))("playwright-core");
const PATIENCE = 30000;

function check(what, holds, detail = "") {
  if (!holds) throw new Error(`${what} ${detail}`);
  console.log(`ok ${what}`);
}

const browser = await browserType.launch({
  executablePath: chromium,
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

async function visit(options, work) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1200, height: 1000 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  const shoot = (name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
  await work(page, shoot, complaints);
  await context.close();
}

try {
  await visit({ colorScheme: "light" }, async (page, shoot, complaints) => {
    const answer = await page.goto(base);
    check("home page", answer.status() === 200, answer.status());
    const protocol = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
    check("HTTP/2", protocol === "h2", protocol);
    await page.waitForFunction(() => /^[0-9]+$/.test(document.getElementById("tick").textContent));
    const first = Number(await page.textContent("#tick"));
    await page.waitForFunction((first) => Number(document.getElementById("tick").textContent) > first, first);
    check("server-sent events go on", true);
    await page.fill("#echo-text", "Hello from a browser");
    await page.click("#echo button");
    await page.waitForFunction(() => document.getElementById("echo-log").textContent.includes("Hello from a browser"));
    check("WebSocket echo", true);
    await page.waitForSelector("#trace dt");
    check("trace", (await page.textContent("#trace")).includes("h2"), await page.textContent("#trace"));
    await shoot("home-light");
    await page.goto(`${base}/pictures`);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    await page.waitForFunction(() => [...document.images].every((image) => image.complete && image.naturalWidth > 0));
    const count = await page.evaluate(() => document.images.length);
    check("pictures load", count >= 3, count);
    await shoot("pictures");
    await page.goto(`${base}/login`);
    const [name, password] = await page.locator("main .lead-in code").allTextContents();
    await page.fill("#name", name);
    await page.fill("#password", "wrong");
    await page.click("main form button");
    check("wrong password", page.url().endsWith("/login"), page.url());
    await page.fill("#name", name);
    await page.fill("#password", password);
    await Promise.all([page.waitForURL("**/account"), page.click("main form button")]);
    check("login", (await page.textContent("h1")).includes(name), await page.textContent("h1"));
    await shoot("account");
    await page.goto(`${base}/notes`);
    await page.fill("#note-text", "written by a browser");
    await page.click("#note-form button");
    await page.waitForFunction(() => document.getElementById("notes").textContent.includes("written by a browser"));
    check("JSON API", true);
    // The wrong password is answered with an error status, which Chromium reports on its console.
    const unexpected = complaints.filter((line) => !/status of 4[0-9][0-9]/.test(line));
    check("nothing on the console", unexpected.length === 0, unexpected.join("; "));
  });
  for (const [scheme, locale] of [["light", "en-GB"], ["dark", "de-DE"]]) {
    await visit({ colorScheme: scheme, locale }, async (page, shoot) => {
      const answer = await page.goto(`${base}/crash`);
      check(`crash page, ${scheme}`, answer.status() === 502, answer.status());
      const receipt = answer.headers()["rempart-request-id"];
      check("receipt on the page", receipt && (await page.textContent("body")).includes(receipt), receipt);
      const language = await page.evaluate(() => document.documentElement.lang);
      check("language of the page", language === locale.slice(0, 2), language);
      await shoot(`crash-${scheme}`);
      await page.goto(base);
      await page.waitForSelector("#trace dt");
      await shoot(`home-${scheme}`);
    });
  }
  await visit({ viewport: { width: 390, height: 800 } }, async (page, shoot) => {
    await page.goto(base);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check("fits a telephone", wide <= 0, `${wide} pixels too wide`);
    await shoot("home-telephone");
  });
  console.log("everything a visitor sees works");
} finally {
  await browser.close();
}
