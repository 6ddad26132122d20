import pytest


@pytest.mark.browser
def test_look(lab):
    p = lab.write_notebook(
        ["import saliency_widgets as sw\nexplorer = sw.demo()\nexplorer", "explorer.wait()"]
    )
    lab.open(p)
    lab.run_all()
    lab.page.wait_for_timeout(2500)
    lab.screenshot("light")
    lab.theme("dark")
    lab.page.wait_for_timeout(800)
    lab.screenshot("dark")
    print(lab.console, lab.page_errors)
    print(lab.outputs(0), lab.outputs(1))
