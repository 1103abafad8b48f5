// Visits a site with rules as a person does: rules.mjs NODE_MODULES CHROMIUM BASE_URL SCREENSHOT_FOLDER.
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, chromium, base, pictures] = process.argv.slice(2);
const { chromium: browserType } = createRequire(join(modules, "x.js"))("playwright-core");

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

try {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, locale: "en-GB" });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  const shoot = (name) => page.screenshot({ path: join(pictures, `rules-${name}.png`), fullPage: true });

  let answer = await page.goto(`${base}/old/page?a=1`);
  check("redirected", page.url() === `${base}/new/page?a=1` && answer.status() === 200, page.url());
  check("moved by a list", (await page.goto(`${base}/listed`)) && page.url() === `${base}/new/listed`, page.url());
  answer = await page.goto(`${base}/new/page`);
  check("compressed", answer.headers()["content-encoding"] === "br", answer.headers()["content-encoding"]);
  check("the page is whole", (await page.textContent("#end")) === "the end");
  check("no script runs where a rule says so", (await page.textContent("#script")) === "untouched");
  check("what betrays the server is gone", answer.headers()["x-powered-by"] === undefined);
  const image = await page.evaluate(() => document.images[0].naturalWidth);
  check("the site's own page shows its picture", image > 0, image);
  await shoot("page");

  answer = await page.goto(`${base}/admin`);
  check("blocked", answer.status() === 403, answer.status());
  const receipt = answer.headers()["rempart-request-id"];
  check("with a receipt", receipt && (await page.textContent("body")).includes(receipt), receipt);
  await shoot("blocked");
  answer = await page.goto(`${base}/gone`);
  check("blocked with the rule's own answer", answer.status() === 451, answer.status());
  check("which is shown", (await page.textContent("body")).includes("not available here"));
  await shoot("own-answer");
  answer = await page.goto(`${base}/challenged`);
  check("a challenge that is not there yet", answer.status() === 403, answer.status());
  answer = await page.goto(`${base}/fails`);
  check("an error with a page of its own", answer.status() === 503, answer.status());
  check("which is shown in place of the origin's", (await page.textContent("h1")) === "Back soon");
  await shoot("error");

  // The picture of this site on a page of another one.
  await page.setContent("<p>elsewhere</p>");
  const elsewhere = base.replace("localhost", "other.localhost");
  await page.goto(`${elsewhere}/embeds`);
  const embedded = await page.evaluate(() => document.images[0].naturalWidth);
  check("a page of another site does not", embedded === 0, embedded);
  console.log("everything rules do is seen");
} finally {
  await browser.close();
}
